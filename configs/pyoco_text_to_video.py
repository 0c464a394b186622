"""PYoCo's text-to-video cascade: four models, each a config of its own.

Paper:     PYoCo (Ge et al. 2023), section 4, Appendix A, Tables F and J - M
Command:   C=configs/pyoco_text_to_video.py; DATA="--config.data.path=DIR \
             --config.text.encoder=T5 --config.clip_text.encoder=CLIP \
             --config.text.store=t5 --config.clip_text.store=clip"
           python -m vdm_jax.main --mode=encode --config=$C:base,image $DATA \
             --workdir=runs/encode
           python -m vdm_jax.main --config=$C:base,image $DATA \
             --workdir=runs/image
           python -m vdm_jax.main --config=$C:base $DATA \
             --config.init.all=runs/image --workdir=runs/base
           python -m vdm_jax.main --config=$C:interpolation $DATA \
             --config.init.all=runs/base --workdir=runs/between
           and likewise sr256 and sr1024, each after its ,image; then
           python -m vdm_jax.main --mode=cascade --workdir=runs/pyoco \
             --stages=runs/base,runs/between,runs/sr256,runs/sr1024 \
             --prompt='a corgi on a skateboard' --num=1
Variants:  base           16x64x64, frameskip 5            (Table J, 1.08 B)
           interpolation  76x64x64 in windows of 16        (Table K, 1.08 B)
           sr256          76x256x256                       (Table L, 300 M)
           sr1024         76x1024x1024 in patches of 256   (Table M, 170 M)
           ,image         the image model that one starts from; not of
                          interpolation, which starts from the base model
           ,list ,packed  other data (see folder.py);  ,smoke  for tests
Experts:   two of each model, of equal shares of its noise levels:
           --config.init.all=runs/base --config.system.times='(0.5, 1.0)' and
           '(0.0, 0.5)'; asked together, e.g. --stages=runs/high+runs/low,...
           Config A of Table 3 has none, B those of super-resolution, C also of
           interpolation, D also of the base model.
Data:      DIR holds clips at any depth, each with its caption in a .txt file;
           the paper used 22.5 million of its own, and 1.2 billion images.
           T5 and CLIP are folders with t5-v1_1-xxl and clip-vit-large-patch14
Result:    not run: no such data, no such machine.  Every stage trains and the
           cascade runs at smoke size and on moving_shapes (docs/pyoco.md)

Of the paper: networks, but for what its tables leave open and their sizes had
to decide (feed_forward, blocks of super-resolution, embedding_dim: see
docs/pyoco.md), noise and its alpha, EDM, both text embeddings and how often
each is dropped, optimizer, learning rate, moving average, gradient
checkpointing, steps, samplers and their steps.  Not in it: image model (it
takes eDiff-I's, which is not public), batch, warm-up, clipping, images beside a
video, clips of super-resolution, guidance, length of captions, noise of coarse
videos, steps of interpolation and how much noise the stochastic sampler adds.
"""

from ml_collections import ConfigDict

from vdm_jax.config import choose, read_from, shrink

EFFICIENT = {
  'name': 'efficient_unet',
  'width': 128,
  'block_multipliers': (1, 2, 4, 4),
  'up_blocks': 1,
  'cross_resolutions': (32,),
  'head_dim': 64,
  'embedding_layers': 2,
}
BASE = {
  'name': 'unet',
  'width': 256,
  'multipliers': (1, 2, 4, 4),
  'num_blocks': 3,
  'attention_resolutions': (8, 16, 32),
  'head_dim': 64,
  'embedding_dim': 2048,
  'embedding_layers': 2,
  'resample': 'block',
  'feed_forward': 4,
}
# Tables L and M name the same blocks, but no one count of them has both sizes:
# in the last level M's are four times smaller.  So each has its own.
NETWORKS = {
  'base': BASE,
  'interpolation': BASE,
  'sr256': {
    **EFFICIENT,
    'multipliers': (1, 2, 4, 8),
    'num_blocks': 1,
    'attention_resolutions': (32,),
    'embedding_dim': 2048,
  },
  'sr1024': {
    **EFFICIENT,
    'multipliers': (1, 2, 4, 4),
    'num_blocks': 2,
    'attention_resolutions': (),
    'embedding_dim': 896,
  },
}
SYSTEMS = {
  'base': {'name': 'vdm'},
  'interpolation': {'name': 'interpolation', 'factor': 5, 'augmented': 0.1},
  'sr256': {'name': 'super_resolution', 'factor': 4, 'augmented': 0.1},
  'sr1024': {'name': 'super_resolution', 'factor': 4, 'augmented': 0.1},
}


def get_config(variant: str = '') -> ConfigDict:
  chosen = choose(variant, *SYSTEMS, 'image', 'list', 'packed', 'smoke')
  stages = [stage for stage in SYSTEMS if stage in chosen] or ['base']
  if len(stages) > 1:
    raise ValueError(f'{" and ".join(stages)} are two stages: give one.')
  (stage,) = stages
  enlarges = stage.startswith('sr')
  if stage == 'interpolation' and 'image' in chosen:
    raise ValueError('interpolation starts from the base model, not images.')
  side = 256 if enlarges else 64
  config = ConfigDict(
    {
      'seed': 0,
      'data': {
        'name': 'folder',
        'path': '',
        'num_frames': 16,
        'height': side,
        'width': side,
        'frameskip': 5 if stage == 'base' else 1,
        'fit': 'patch4' if stage == 'sr1024' else 'center',
        'flip': False,
        'captions': True,
      },
      'text': {'encoder': '', 'store': '', 'max_length': 77},
      'clip_text': {'encoder': '', 'store': '', 'max_length': 77},
      'system': {
        **SYSTEMS[stage],
        'parameterization': {'name': 'edm', 'sigma_data': 0.5},
        'loss_weight': 'output',
        'schedule': {'name': 'log_normal', 'mean': -1.2, 'std': 1.2},
        'times': (0.0, 1.0),  # less for an expert
        'sample_schedule': {
          'name': 'karras',
          'edm_sigma_min': 0.002,
          'edm_sigma_max': 80.0,
          'rho': 7.0,
        },
        'noise': {'name': 'progressive', 'correlation': 2.0},
        'cond_dropout': 0.25,  # of T5's tokens
        'clip_dropout': 0.2,
      },
      'network': {
        **NETWORKS[stage],
        'temporal': True,
        'text_dim': 4096,
        'clip_text_dim': 768,
        'text': 'cross',
        'null_text': 'zero',
        'dropout': 0.0,
        'remat': True,
        'dtype': 'bfloat16',
      },
      'optimizer': {
        'name': 'adam',
        'learning_rate': 1e-4,
        'beta1': 0.9,
        'beta2': 0.999,
        'weight_decay': 0.01,
        'clip_norm': 1.0,
        'warmup_steps': 5000,
      },
      'train': {
        'num_steps': 220_000 if enlarges else 150_000,
        'batch_size': 128,
        'num_images': 4,
        'ema_decay': 0.9999,
        'log_every': 100,
        'save_every': 1000,
        'look_every': 0 if enlarges else 10_000,
      },
      'mesh': {'data': -1, 'fsdp': 1, 'model': 1},
      'init': {'all': ''},
      'sample': {
        'sampler': {'name': 'kutta', 'churn': 0.1},
        'num_steps': 60,
        'guidance_scale': 5.0,
        'num': 4,
        'batch_size': 4,
      },
    }
  )
  if enlarges:
    config.sample.update(num_steps=20, num=1, batch_size=1, guidance_scale=1.0)
    config.sample.sampler = ConfigDict({'name': 'kutta'})
  if 'image' in chosen:
    config.data.num_frames = 1
    config.system.noise = ConfigDict({'name': 'independent'})
    config.network.temporal = False
    config.train.num_images = 0
  if 'list' in chosen:
    read_from(config, 'list', file='', path='', layout='plain', split='')
  if 'packed' in chosen:
    read_from(config, 'packed', path='')
  if 'smoke' in chosen:
    shrink(config)
    if 'image' in chosen:
      config.data.num_frames = 1
  return config
