"""Video prediction on Kinetics-600, 5 frames to 11.

Paper:     Video Diffusion Models (Ho et al. 2022), Appendix A.3 and Table 3
Command:   python -m vdm_jax.main --config=configs/kinetics600.py \
             --config.data.path=DIR --workdir=runs/kinetics600
Variants:  --config=configs/kinetics600.py:list    (config.data.file is the
             csv of the data set, config.data.path the folder of its clips)
           --config=configs/kinetics600.py:packed  (written by --mode=pack)
           --config=configs/kinetics600.py:smoke   (two steps, for tests)
Data:      DIR holds the training clips, at any depth
Hardware:  the paper used 256 TPU v4 chips
Result:    not yet run; paper: FVD 16.2 with the Langevin corrector

Not in the paper's list: clipping, warm-up, and all that only says how a run is
watched.
"""

from ml_collections import ConfigDict

from vdm_jax.config import choose, read_from, shrink


def get_config(variant: str = '') -> ConfigDict:
  chosen = choose(variant, 'list', 'packed', 'smoke')
  config = ConfigDict(
    {
      'seed': 0,
      'data': {
        'name': 'folder',
        'path': '',
        'num_frames': 16,
        'height': 64,
        'width': 64,
        'frameskip': 1,
        'fit': 'center',
        'flip': False,
      },
      'system': {
        'name': 'vdm',
        'parameterization': {'name': 'v'},
        'loss_weight': 'v',
        'schedule': {'name': 'cosine', 'logsnr_min': -20.0, 'logsnr_max': 20.0},
        'noise': {'name': 'independent'},
      },
      'network': {
        'name': 'unet',
        'width': 256,
        'multipliers': (1, 2, 4, 8),
        'num_blocks': 2,
        'attention_resolutions': (8, 16, 32),
        'head_dim': 64,
        'embedding_dim': 1024,
        'embedding_layers': 2,
        'dropout': 0.1,
        'dtype': 'bfloat16',
      },
      'optimizer': {
        'name': 'adam',
        'learning_rate': 2e-4,
        'beta1': 0.9,
        'beta2': 0.99,
        'weight_decay': 0.0,
        'clip_norm': 1.0,
        'warmup_steps': 1000,
      },
      'train': {
        'num_steps': 220_000,
        'batch_size': 256,
        'num_images': 8,
        'ema_decay': 0.9999,
        'log_every': 100,
        'save_every': 1000,
        'look_every': 10_000,
      },
      'mesh': {'data': -1, 'fsdp': 1, 'model': 1},
      'sample': {
        'sampler': {'name': 'ancestral', 'variance_mix': 0.0},
        'num_steps': 128,
        'corrector': {'name': 'langevin', 'step_size': 0.1},
        'reconstruction_weight': 9.0,
        'num': 16,
        'batch_size': 16,
      },
    }
  )
  if 'list' in chosen:
    read_from(
      config, 'list', file='', path='', layout='kinetics', split='train'
    )
  if 'packed' in chosen:
    read_from(config, 'packed', path='')
  if 'smoke' in chosen:
    shrink(config)
  return config
