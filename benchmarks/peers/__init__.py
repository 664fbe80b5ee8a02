"""What is compared: for each name a module whose function `pairs` returns its pairs."""
