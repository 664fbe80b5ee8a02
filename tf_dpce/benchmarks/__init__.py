"""What training costs on the machine at hand, measured in one run."""
