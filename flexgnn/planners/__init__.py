"""The built-in planners, one a file, registered by entry point as a third party's would be."""
