"""The console script `gapmend`: what a signal does is settled before anything else is loaded."""

from pipeline.cli import signals


def main() -> None:
    """Run the command line; stopped while it loads, it says so in one line too."""
    try:
        with signals.caught():
            from pipeline.cli.main import main as run

            run()
    except BaseException:
        if signals.has_come():
            signals.leave()
        raise
    finally:
        signals.stop_at_once()
