"""Networks on optical flow."""
