"""The report of an evaluation: one HTML page that shows what a run has learnt and what not."""
