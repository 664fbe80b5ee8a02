"""The paper's questions, each answered by a few short runs that differ in one thing."""
