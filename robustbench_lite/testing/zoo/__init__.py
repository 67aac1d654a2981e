"""A zoo of broken models, broken attacks and healthy controls with known true answers.

What judges robustness must call none of the broken ones robust and must have nothing to say
against the healthy ones. `MEMBERS` lists the models with their flaws; each is named in a suite as

    models: {net: {load: torch, factory: "robustbench_lite.testing.zoo:nan_gradient"}}

and judged on the data set `mnist-sample`. `ATTACKS` holds the broken attacks, for the hook
`robeval_attacks` of a plug-in; `ATTACK_FINDINGS` says what each must be found out by.
"""

from __future__ import annotations

from .attacks import ATTACK_FINDINGS as ATTACK_FINDINGS
from .attacks import ATTACKS as ATTACKS
from .attacks import forget as forget
from .export import export as export
from .gradients import jpeg_input as jpeg_input
from .gradients import k_winners as k_winners
from .gradients import nan_gradient as nan_gradient
from .gradients import quantised_input as quantised_input
from .gradients import sign_activations as sign_activations
from .healthy import linear as linear
from .healthy import lipschitz as lipschitz
from .healthy import robust as robust
from .healthy import standard as standard
from .healthy import surrogate as surrogate
from .healthy import vit as vit
from .inputs import bytes_input as bytes_input
from .inputs import mean_detector as mean_detector
from .inputs import memoriser as memoriser
from .inputs import tabular as tabular
from .inputs import three_classes as three_classes
from .inputs import two_classes as two_classes
from .memory import cached_answers as cached_answers
from .memory import cached_places as cached_places
from .memory import counted_calls as counted_calls
from .memory import two_faced as two_faced
from .nets import digits as digits
from .nets import undefended as undefended
from .outputs import constant_logits as constant_logits
from .outputs import distilled as distilled
from .outputs import hard_label as hard_label
from .outputs import log_softmax_output as log_softmax_output
from .outputs import scaled_30 as scaled_30
from .outputs import scaled_100 as scaled_100
from .outputs import scaled_1000 as scaled_1000
from .outputs import softmax_output as softmax_output
from .outputs import softmax_rounded as softmax_rounded
from .outputs import votes_head as votes_head
from .randomness import dropout_on as dropout_on
from .randomness import gaussian_noise as gaussian_noise
from .randomness import random_resizing as random_resizing
from .registry import MEMBERS as MEMBERS
from .registry import Member as Member
from .registry import member as member
from .state import batch_brightness as batch_brightness
from .state import batch_norm_training as batch_norm_training
