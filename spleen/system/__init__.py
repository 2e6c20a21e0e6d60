"""What the operating system gives: files, locks, memory, signals, hardware; knows no domain."""
