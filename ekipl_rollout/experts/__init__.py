"""Who we ask: one provider kind, one file; build.py has the menu."""
