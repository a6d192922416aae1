"""The only place that calls the kernel or ssl, beside ``socketserver``."""
