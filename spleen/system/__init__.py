"""What the operating system and the installation give; nothing here knows of images or networks."""
