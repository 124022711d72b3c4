"""What is installed, as against what is in the checkout."""
