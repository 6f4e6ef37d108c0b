"""Knowledge distillation: students and who teaches them.

A name in an experiment file is a key of `METHODS`.
"""

from tlresearch.distillation.attention import AttentionTransfer
from tlresearch.distillation.born_again import BornAgain
from tlresearch.distillation.crd import CRD
from tlresearch.distillation.dist import DIST
from tlresearch.distillation.dkd import DKD
from tlresearch.distillation.fitnets import FitNets
from tlresearch.distillation.kd import KD
from tlresearch.distillation.label_smoothing import LabelSmoothing
from tlresearch.distillation.method import DistillationMethod
from tlresearch.distillation.mutual import MutualLearning
from tlresearch.distillation.pkt import PKT
from tlresearch.distillation.pruned import Pruned
from tlresearch.distillation.rkd import RKD
from tlresearch.distillation.similarity import SimilarityPreserving
from tlresearch.distillation.student import StudentAlone
from tlresearch.distillation.teacher import TeacherItself
from tlresearch.distillation.teacher_assistant import TeacherAssistant

METHODS: dict[str, type[DistillationMethod]] = {
    "student": StudentAlone,
    "label_smoothing": LabelSmoothing,
    "teacher": TeacherItself,
    "kd": KD,
    "dkd": DKD,
    "dist": DIST,
    "fitnets": FitNets,
    "attention": AttentionTransfer,
    "similarity": SimilarityPreserving,
    "rkd": RKD,
    "pkt": PKT,
    "crd": CRD,
    "born_again": BornAgain,
    "teacher_assistant": TeacherAssistant,
    "mutual": MutualLearning,
    "pruned": Pruned,
}
