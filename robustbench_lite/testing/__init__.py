"""What plug-in authors test with: the zoo of broken models and attacks.

Nothing here is loaded by a run that does not name it.
"""

from __future__ import annotations

from .zoo import ATTACK_FINDINGS as ATTACK_FINDINGS
from .zoo import ATTACKS as ATTACKS
from .zoo import MEMBERS as MEMBERS
from .zoo import Member as Member
from .zoo import digits as digits
from .zoo import export as export
from .zoo import member as member
