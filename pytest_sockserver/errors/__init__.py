"""The exceptions, the lines of the user that they point at, and how messages are written."""
