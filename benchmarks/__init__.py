"""What training and serving cost on the machine at hand, measured in one run."""
