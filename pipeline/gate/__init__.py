"""What a challenger has to prove before it goes live, one small file per check."""
