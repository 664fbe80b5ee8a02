"""Values of both stages for each data set and backbone, as YAML files."""
