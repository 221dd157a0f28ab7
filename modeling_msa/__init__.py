from .configuration_msa import MsaConfig
from .modeling_msa import *
from .tokenization_msa import MsaTokenizer
