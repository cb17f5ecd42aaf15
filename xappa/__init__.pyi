from xappa import obs as obs
from xappa import observe as observe
from xappa import osse as osse
from xappa import plot as plot
from xappa import testing as testing
from xappa import tutorial as tutorial
from xappa import verify as verify
from xappa.diffusion.sampling import Sampler as Sampler
from xappa.models.catalogue import open_model as open_model
from xappa.models.fitting import fit_gaussian as fit_gaussian
from xappa.models.settings import Guidance as Guidance
from xappa.observe import register_operator as register_operator
from xappa.options import set_options as set_options
from xappa.tasks.cycle import cycle as cycle
from xappa.training import AppaTraining as AppaTraining
from xappa.training import DownscalingTraining as DownscalingTraining
from xappa.training import train as train
from xappa.training import train_downscaler as train_downscaler
from xappa.versions import show_versions as show_versions

__version__: str
from xappa.tasks.quality import QualityControl as QualityControl
