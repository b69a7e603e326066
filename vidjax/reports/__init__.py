"""HTML reports, and images of clips and reconstructions."""
