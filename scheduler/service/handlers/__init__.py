"""The send handlers that come with the package."""
