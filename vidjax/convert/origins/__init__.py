"""Rules for pretrained weights, one file per source."""
