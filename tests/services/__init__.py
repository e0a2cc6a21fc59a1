"""An example of a service to attack, for tests and to try a study by hand."""
