"""User study: which of two settings' reconstructions people find closer to the private image (TL-DMI,
section F.2)."""
