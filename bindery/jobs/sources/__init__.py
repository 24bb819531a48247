"""Sources that are no folders: manifests, WebDataset tars, object stores. Each is a `Listing`."""
