"""VideoFusion on the paper's four data sets.

Paper:     VideoFusion (Luo et al. 2023), section 4.1, Tables 8 and 9
Command:   python -m vdm_jax.main --mode=encode \
             --config=configs/videofusion.py:ucf101 \
             --config.visual.encoder=CLIP --workdir=runs/videofusion
           python -m vdm_jax.main --config=configs/videofusion.py:ucf101 \
             --workdir=runs/videofusion
Variants:  --config=configs/videofusion.py:ucf101         (Table 8)
           --config=configs/videofusion.py:ucf101,classes (class-conditional)
           --config=configs/videofusion.py:sky_timelapse,
             :taichi_hd                      (Table 8; clips below data.path)
           --config=configs/videofusion.py:webvid         (Table 9; a list)
           --config=configs/videofusion.py:ucf101,image   (base on frames)
           ,packed reads what --mode=pack wrote, ,smoke is for tests
Pretrained base: train :...,image, then --config.init.base=ITS_WORKDIR
Data:      CLIP is a folder of clip-vit-large-patch14, embeddings of 768
Hardware:  not said in the paper
Result:    not yet run; paper, UCF101 at 64 x 64: FVD 139, IS 71.67

Of the paper: networks, schedule, objective, base share, guidance, DDIM steps.
Not in it: optimizer, batch, learning rates ("small" for the base generator),
length of training, the prior's size, and what the residual generator has beside
a U-Net of images: here four convolutions over time after each block, attention
over time, and to four tokens of the embedding.  That makes 0.22 B of Table 8,
but 0.49 B where Table 9 has 0.59 B: see docs/videofusion.md.
"""

from ml_collections import ConfigDict

from vdm_jax.config import choose, read_from, shrink

DATA = {
  'ucf101': {
    'name': 'tfds',
    'builder': 'ucf101',
    'split': 'train',
    'data_dir': '',
    'flip': False,
  },
  'sky_timelapse': {'name': 'folder', 'path': '', 'flip': True},
  'taichi_hd': {'name': 'folder', 'path': '', 'flip': True},
  'webvid': {
    'name': 'list',
    'file': '',
    'path': '',
    'layout': 'webvid',
    'split': '',
    'flip': False,
    'captions': True,
  },
}


def get_config(variant: str = '') -> ConfigDict:
  chosen = choose(variant, *DATA, 'classes', 'image', 'packed', 'smoke')
  named = [name for name in DATA if name in chosen] or ['ucf101']
  if len(named) > 1 or ('classes' in chosen and named != ['ucf101']):
    raise ValueError(
      f'variant {variant!r} chooses {" and ".join(named)}: give one data set, '
      'and classes with ucf101 alone.'
    )
  data, large = named[0], named == ['webvid']
  unet = {
    'name': 'unet',
    'num_blocks': 3 if large else 2,
    'multipliers': (1, 2, 3, 4) if large else (1, 2, 3, 5),
    'attention_resolutions': (8, 16, 32),
    'head_dim': 64,
    'embedding_layers': 2,
    'visual_dim': 768,
    'resample': 'block',
    'dropout': 0.0,
    'remat': large,
    'dtype': 'bfloat16',
  }
  base_width, residual_width = (512, 192) if large else (192, 128)
  config = ConfigDict(
    {
      'seed': 0,
      'data': {
        **DATA[data],
        'num_frames': 16,
        'height': 64,
        'width': 64,
        'frameskip': 1,
        'fit': 'center',
      },
      'system': {
        'name': 'videofusion',
        'parameterization': {'name': 'eps'},
        'loss_weight': 'eps',
        'schedule': {'name': 'cosine', 'logsnr_min': -20.0, 'logsnr_max': 20.0},
        'noise': {'name': 'base_residual', 'base_share': 0.5},
        'training': 'stop_gradient',
        'cond_dropout': 0.1,
        'prior': {'num_steps': 64, 'guidance_scale': 1.0},
      },
      'network': {
        'base': {
          **unet,
          'width': base_width,
          'embedding_dim': 4 * base_width,
          'temporal': False,
          'noise_level': 'logsnr',  # linear, cosine: see docs/videofusion.md
        },
        'residual': {
          **unet,
          'width': residual_width,
          'embedding_dim': 4 * residual_width,
          'temporal_convolutions': 4,
          'visual': 'cross',
        },
        'prior': {
          'name': 'prior',
          'width': 1024,
          'depth': 12,
          'head_dim': 64,
          'classes': (101,) if 'classes' in chosen else (),
          'text_dim': 768 if large else 0,
          'dtype': 'bfloat16',
        },
      },
      'visual': {'encoder': '', 'store': '', 'clips_per_video': 4},
      'optimizer': {
        'name': 'adam',
        'learning_rate': 1e-4,
        'beta1': 0.9,
        'beta2': 0.99,
        'weight_decay': 0.0,
        'clip_norm': 1.0,
        'warmup_steps': 1000,
        'scales': {'base': 0.1},
      },
      'train': {
        'num_steps': 200_000,
        'batch_size': 128,
        'num_images': 0,
        'ema_decay': 0.9999,
        'log_every': 100,
        'save_every': 1000,
        'look_every': 10_000,
      },
      'mesh': {'data': -1, 'fsdp': 1, 'model': 1},
      'init': {'base': ''},
      'sample': {
        'sampler': {'name': 'ddim'},
        'num_steps': 50,
        'guidance_scale': 3.0,
        'num': 16,
        'batch_size': 16,
      },
    }
  )
  if large:
    config.text = {'encoder': '', 'store': '', 'max_length': 77}
  if 'image' in chosen:
    only_frames(config)
  if 'packed' in chosen:
    read_from(config, 'packed', path='')
  if 'smoke' in chosen:
    shrink(config)
  return config


def only_frames(config: ConfigDict) -> None:
  """Trains the base generator alone, on single frames, as a VDM of images."""
  config.data.num_frames = 1
  system = {k: config.system[k] for k in ('schedule', 'cond_dropout')}
  system |= {k: config.system[k] for k in ('parameterization', 'loss_weight')}
  config.system = ConfigDict({'name': 'vdm', **system})
  config.network = config.network.base
  del config.init, config.optimizer.scales
