"""Video diffusion on a folder of your own videos.

Paper:     Video Diffusion Models (Ho et al. 2022), at a small size
Command:   python -m vdm_jax.main --config=configs/folder.py \
             --config.data.path=DIR --workdir=runs/folder
Variants:  --config=configs/folder.py:list    (named by config.data.file)
           --config=configs/folder.py:packed  (written by --mode=pack)
           --config=configs/folder.py:smoke   (two steps, for tests)
Data:      mp4, avi, mov, webm, mkv, gif and images, at any depth below DIR
Hardware:  one accelerator; for 2 CPU cores see the README
Result:    depends on your videos
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
        'fit': 'crop',
        'short': 'skip',
        'flip': True,
        'captions': False,
        'cache_mb': 512,
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
        'width': 64,
        'multipliers': (1, 2, 4, 8),
        'num_blocks': 2,
        'attention_resolutions': (8, 16),
        'head_dim': 64,
        'embedding_dim': 512,
        'embedding_layers': 2,
        'dropout': 0.1,
        'patch': 1,
        'remat': False,
        'dtype': 'bfloat16',
      },
      'optimizer': {
        'learning_rate': 3e-4,
        'beta2': 0.99,
        'weight_decay': 0.0,
        'clip_norm': 1.0,
        'warmup_steps': 1000,
        'decay_steps': 0,
      },
      'train': {
        'num_steps': 100_000,
        'batch_size': 16,
        'num_images': 0,
        'accumulate': 1,
        'ema_decay': 0.9999,
        'log_every': 100,
        'save_every': 1000,
        'look_every': 5000,
        'keep': 3,
        'num_workers': 0,
      },
      'mesh': {'data': -1, 'fsdp': 1, 'model': 1},
      'sample': {
        'sampler': {'name': 'ancestral', 'variance_mix': 0.1},
        'num_steps': 256,
        'num': 8,
        'batch_size': 8,
      },
    }
  )
  if 'list' in chosen:
    read_from(config, 'list', file='', path='', layout='plain', split='')
  if 'packed' in chosen:
    read_from(config, 'packed', path='')
  if 'smoke' in chosen:
    shrink(config)
  return config
