"""The door of the library: a study opened, run and read, by the commands of `jobs/` and in a notebook."""
