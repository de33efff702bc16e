"""The unit under a real systemd and the image as a real container, each set up by the commands in its own header."""
