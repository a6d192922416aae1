"""What is said: matching, cutting and writing down bytes.  Pure: no socket, no thread, no clock."""
