"""PYoCo on UCF-101: an image model on frames, then a video model from it.

Paper:     PYoCo (Ge et al. 2023), section 5.1, Appendix A.3, Tables G - I
Command:   python -m vdm_jax.main --config=configs/pyoco.py:small,image \
             --workdir=runs/frames
           python -m vdm_jax.main --config=configs/pyoco.py:small \
             --config.init.all=runs/frames --workdir=runs/pyoco
Variants:  --config=configs/pyoco.py:small         (69 M, the default)
           --config=configs/pyoco.py:medium, :large (112 M, 253 M)
           --config=configs/pyoco.py:small,mixed    (mixed noise, alpha = 1)
           --config=configs/pyoco.py:small,independent
           --config=configs/pyoco.py:small,image    (frames; before the others)
           ,folder and ,packed read other data, ,smoke is for tests
Data:      13,320 videos: tfds build ucf101 --file_format=array_record
Hardware:  75 GPU-days for 253 M in the paper
Result:    not yet run; paper, 253 M: IS 60.01, FVD 310

Of the paper: networks, EDM, noise priors and their alpha, optimizer, learning
rates, warm-up, sampler and its 25 steps.  Not in it: betas, clipping, batch,
length of training, moving average, images beside a video, and how much noise
the stochastic sampler adds.  "3kutta, order 6" names two methods; the first is
used.
"""

from ml_collections import ConfigDict

from vdm_jax.config import choose, read_from, shrink

SIZES = {
  'small': {'width': 128, 'multipliers': (1, 2, 2, 3)},
  'medium': {'width': 128, 'multipliers': (1, 2, 3, 4)},
  'large': {'width': 192, 'multipliers': (1, 2, 3, 4)},
}
NOISE = {
  'progressive': {'name': 'progressive', 'correlation': 2.0},
  'mixed': {'name': 'mixed', 'correlation': 1.0},
  'independent': {'name': 'independent'},
}


def one_of(chosen: set[str], choices: dict) -> str:
  """The choice of a variant, the first if it has none."""
  named = [name for name in choices if name in chosen] or list(choices)[:1]
  if len(named) > 1:
    raise ValueError(f'the variant chooses {" and ".join(named)}: give one.')
  return named[0]


def get_config(variant: str = '') -> ConfigDict:
  chosen = choose(variant, *SIZES, *NOISE, 'image', 'folder', 'packed', 'smoke')
  if 'image' in chosen and chosen & NOISE.keys():
    raise ValueError('single frames share no noise: leave its name out.')
  size = SIZES[one_of(chosen, SIZES)]
  config = ConfigDict(
    {
      'seed': 0,
      'data': {
        'name': 'tfds',
        'builder': 'ucf101',
        'split': 'train+test',
        'data_dir': '',
        'num_frames': 16,
        'height': 64,
        'width': 64,
        'frameskip': 1,
        'fit': 'center',
        'flip': False,
      },
      'system': {
        'name': 'vdm',
        'parameterization': {'name': 'edm', 'sigma_data': 0.5},
        'loss_weight': 'output',
        'schedule': {'name': 'log_normal', 'mean': -1.2, 'std': 1.2},
        'sample_schedule': {
          'name': 'karras',
          'edm_sigma_min': 0.002,
          'edm_sigma_max': 80.0,
          'rho': 7.0,
        },
        'noise': NOISE[one_of(chosen, NOISE)],
        'times': (0.0, 1.0),  # less for an expert
      },
      'network': {
        'name': 'unet',
        **size,
        'num_blocks': 2,
        'attention_resolutions': (8, 16, 32),
        'head_dim': 64,
        'temporal': True,
        'embedding_dim': 4 * size['width'],
        'embedding_layers': 2,
        'resample': 'block',
        'dropout': 0.1,
        'dtype': 'bfloat16',
      },
      'optimizer': {
        'name': 'adam',
        'learning_rate': 1e-4,
        'beta1': 0.9,
        'beta2': 0.999,
        'weight_decay': 0.0,
        'clip_norm': 1.0,
        'warmup_steps': 5000,
      },
      'train': {
        'num_steps': 100_000,
        'batch_size': 128,
        'num_images': 4,
        'ema_decay': 0.9999,
        'log_every': 100,
        'save_every': 1000,
        'look_every': 10_000,
      },
      'mesh': {'data': -1, 'fsdp': 1, 'model': 1},
      'init': {'all': ''},
      'sample': {
        'sampler': {'name': 'kutta', 'churn': 0.1},
        'num_steps': 25,
        'num': 16,
        'batch_size': 16,
      },
    }
  )
  if 'image' in chosen:
    config.data.num_frames = 1
    config.system.noise = ConfigDict(NOISE['independent'])
    config.network.temporal = False
    config.optimizer.learning_rate = 2e-4
    config.train.num_images = 0
  for source in ('folder', 'packed'):
    if source in chosen:
      read_from(config, source, path='')
  if 'smoke' in chosen:
    shrink(config)
    config.data.num_frames = 1 if 'image' in chosen else 4
  return config
