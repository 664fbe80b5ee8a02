"""The paper's questions, each a set of short runs that differ in one thing."""
