"""Options, fixtures, hooks and reports.  The only folder that imports pytest."""
