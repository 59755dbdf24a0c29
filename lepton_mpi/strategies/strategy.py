"""What training asks of every strategy beside ``micro_batches`` and ``step``, where nothing is left to do."""

from lepton_mpi.vectors import Views


class Strategy:
    """After ``step`` all parameters are new. One that leaves some of it to the next step says so in these methods."""

    def serve(self, parameters: Views) -> None:
        """A model asks for ``parameters`` (``Views.need``) before it reads them."""

    def finish(self) -> None:
        """Return once all parameters are those after the last step. Collective over the world."""
