"""Plans of TensorRT and what can be said about graphs without one."""
