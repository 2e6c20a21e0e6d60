"""What one should know about images and labels before training, fact by fact."""
