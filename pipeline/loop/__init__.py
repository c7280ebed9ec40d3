"""One run of the feedback loop: new labels in, a challenger out, live or refused, with every decision on record."""
