"""Pictures of an account: what was measured, chosen, trained, lost, and what came of what."""

from pipeline.pages.charts.draw import Picture, png, svg, svg_file
from pipeline.pages.charts.pictures import pictures

__all__ = ["Picture", "pictures", "png", "svg", "svg_file"]
