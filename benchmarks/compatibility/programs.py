"""Which of Pyro's examples and tutorials are run, and with what.

Every program here trains with one of the estimators; those of MCMC, of importance sampling or of other losses alone are
left out.  ``few`` are arguments that make a program short, ``default`` those that its default number of steps needs
besides.  A tutorial is a notebook and takes no arguments: its short run ends after some calls of its estimators.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Program:
    """One script or notebook of a checkout of Pyro.

    Args:
        path: below the checkout.
        few: arguments for few steps, in one string.
        default: arguments for the default number of steps.
    """

    path: str
    few: str = ""
    default: str = ""

    @property
    def name(self) -> str:
        """What the table calls it: its file, and the arguments that choose a variant of it."""
        short = self.path.removeprefix("examples/").removeprefix("tutorial/source/")
        return f"{short} {self.default}".strip()

    def arguments(self, default: bool) -> list[str]:
        """The arguments of one run."""
        return self.default.split() if default else self.few.split()

    def source(self, checkout: Path) -> Path:
        """The file itself."""
        return checkout / self.path


def _example(path: str, few: str, default: str = "") -> Program:
    return Program(f"examples/{path}", f"{default} {few}".strip(), default)


EXAMPLES = (
    _example("air/main.py", "--num-steps=12 --batch-size=8 --no-baseline", "--no-baseline"),
    _example("air/main.py", "--num-steps=12 --batch-size=8"),
    _example("capture_recapture/cjs.py", "--num-steps=40", "-m 1"),
    _example("capture_recapture/cjs.py", "--num-steps=40", "-m 4"),
    _example("capture_recapture/cjs.py", "--num-steps=40", "-m 1 --tmc"),
    _example("contrib/autoname/mixture.py", "--num-epochs=20"),
    _example("contrib/autoname/scoping_mixture.py", "--num-epochs=20"),
    _example("contrib/autoname/tree_data.py", "--num-epochs=12"),
    _example("contrib/cevae/synthetic.py", "--num-epochs=4"),
    _example("contrib/epidemiology/sir.py", "-ss=40 -n=4 -d=20 -p=1000 -f 2", "--nojit --svi"),
    _example("contrib/forecast/bart.py", "--num-steps=20 --stride=99999"),
    _example("contrib/gp/sv-dkl.py", "--epochs=1 --num-inducing=4 --batch-size=1000"),
    _example("contrib/mue/FactorMuE.py", "--test --small --n-epochs=10", "--no-plots --no-save"),
    _example("contrib/mue/ProfileHMM.py", "--test --small --n-epochs=10", "--no-plots --no-save"),
    _example("contrib/oed/ab_test.py", "--num-vi-steps=40 --num-bo-steps=2"),
    _example("cvae/main.py", "--num-epochs=1", "--num-quadrant-inputs=1"),
    _example("dmm.py", "--num-epochs=6"),
    _example("dmm.py", "--num-epochs=4", "--num-iafs=1"),
    _example("eight_schools/svi.py", "--num-epochs=60"),
    _example("hmm.py", "--num-steps=12 --truncate=10", "--model=1"),
    _example("hmm.py", "--num-steps=12 --truncate=10", "--model=3"),
    _example("hmm.py", "--num-steps=12 --truncate=10", "--model=6 --tmc --tmc-num-samples=2"),
    _example("lda.py", "--num-steps=40 --num-words=100 --num-docs=100 --num-words-per-doc=8"),
    _example("minipyro.py", "--num-steps=200", "--backend=pyro"),
    _example("mixed_hmm/experiment.py", "--timesteps=20"),
    _example("neutra.py", "-n 60 --num-warmup 5 --num-samples 5"),
    _example("scanvi/scanvi.py", "--num-epochs 4", "--dataset mock"),
    _example("sparse_gamma_def.py", "--num-epochs=20 --eval-particles=2 --eval-frequency=10", "--guide custom"),
    _example("sparse_gamma_def.py", "--num-epochs=20 --eval-particles=2 --eval-frequency=10", "--guide easy"),
    _example("svi_horovod.py", "--num-epochs=4 --size=400", "--no-horovod"),
    _example("svi_lightning.py", "--max_epochs=4 --size=400", "--accelerator cpu --devices 1"),
    _example("svi_torch.py", "--num-epochs=4 --size=400"),
    _example("toy_mixture_model_discrete_enumeration.py", "--num-steps=40"),
    _example("vae/ss_vae_M2.py", "--num-epochs=1"),
    _example("vae/ss_vae_M2.py", "--num-epochs=1", "--aux-loss"),
    _example("vae/ss_vae_M2.py", "--num-epochs=1", "--enum-discrete=sequential"),
    _example("vae/vae.py", "--num-epochs=1"),
    _example("vae/vae_comparison.py", "--num-epochs=1"),
)
TUTORIALS = tuple(
    Program(f"tutorial/source/{name}.ipynb")
    for name in (
        "bayesian_regression",
        "bayesian_regression_ii",
        "boosting_bbvi",
        "dirichlet_process_mixture",
        "easyguide",
        "ekf",
        "enumeration",
        "gmm",
        "gp",
        "intro_long",
        "intro_part_ii",
        "jit",
        "logistic-growth",
        "mle_map",
        "modules",
        "predictive_deterministic",
        "prodlda",
        "scanvi",
        "stable",
        "svi_flow_guide",
        "svi_part_i",
        "svi_part_iii",
        "tensor_shapes",
        "tracking_1d",
        "vae",
        "vae_flow_prior",
        "workflow",
        "working_memory",
    )
)
PROGRAMS = (*EXAMPLES, *TUTORIALS)
