"""The built-in backends, one tier a file, registered by entry point as a third party's would be."""
