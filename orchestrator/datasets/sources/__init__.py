"""Sources: readers of the file formats that can be staged; `registry` opens one by name."""
