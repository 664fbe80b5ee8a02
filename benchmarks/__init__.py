"""What training and serving cost on the machine at hand: `python -m benchmarks NAME`."""
