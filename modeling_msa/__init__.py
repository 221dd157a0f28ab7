"""The MSA Transformer (Rao et al., ICML 2021) for Hugging Face transformers."""

from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForMaskedLM,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    AutoTokenizer,
)

from .alignment import Alignment, AlignmentError, bundled_family, read_alignment, write_alignment
from .configuration_msa import MsaConfig
from .contacts import (
    ContactFit,
    ContactMap,
    fit_contact_regression,
    precision,
    precisions,
    predict_contacts,
    write_contacts,
)
from .conversion import ConversionError, convert_checkpoint, revert_checkpoint
from .data import (
    MsaDataCollator,
    MsaDataCollatorForContactPrediction,
    MsaDataCollatorForMaskedLM,
    MsaDataCollatorForSequenceClassification,
    MsaDataCollatorForTokenClassification,
    MsaDataset,
    SizeGroupedSampler,
    VariantDataset,
)
from .embeddings import Embeddings, embed, write_embeddings
from .evaluation import (
    ContactEvaluation,
    KnownFamily,
    evaluate_contacts,
    fit_contacts,
    list_families,
    write_evaluation,
)
from .exporting import export_onnx, export_program
from .generation import Generated, generate, row_log_likelihoods, write_generated
from .hub import load_model
from .inputs import prepare_alignment
from .labels import read_labels
from .modeling_msa import (
    MsaForContactPrediction,
    MsaForMaskedLM,
    MsaForSequenceClassification,
    MsaForTokenClassification,
    MsaModel,
    MsaPreTrainedModel,
)
from .msa_datasets import load_alignments
from .phylogeny import DistanceModel, Distances, fit_distances, predict_distances, write_distances
from .pipeline_msa import (
    MsaContactPredictionPipeline,
    MsaFeatureExtractionPipeline,
    MsaFillMaskPipeline,
    register_pipelines,
)
from .plotting import plot_contacts, plot_distances, plot_substitutions
from .repository import complete_folder
from .sampling import filter_rows, neff, select_rows, sequence_weights
from .scoring import SubstitutionScores, VariantScores, score_all_singles, score_variants, spearman, write_scores
from .search import search_homologues
from .sharding import split_rows
from .sharing import push_folder
from .structure import structure_contacts
from .tokenization_msa import MsaTokenizer

# With the package installed, folders without code copies load through the auto classes, and those with them need
# no trust_remote_code.
AutoConfig.register(MsaConfig.model_type, MsaConfig)
AutoTokenizer.register(MsaConfig, MsaTokenizer)
AutoModel.register(MsaConfig, MsaModel)
AutoModelForMaskedLM.register(MsaConfig, MsaForMaskedLM)
AutoModelForSequenceClassification.register(MsaConfig, MsaForSequenceClassification)
AutoModelForTokenClassification.register(MsaConfig, MsaForTokenClassification)
register_pipelines()  # other models' pipelines stay as they are

__version__ = "0.1.0"
__all__ = [
    "Alignment",
    "AlignmentError",
    "ContactEvaluation",
    "ContactFit",
    "ContactMap",
    "ConversionError",
    "DistanceModel",
    "Distances",
    "Embeddings",
    "Generated",
    "KnownFamily",
    "MsaConfig",
    "MsaContactPredictionPipeline",
    "MsaDataCollator",
    "MsaDataCollatorForContactPrediction",
    "MsaDataCollatorForMaskedLM",
    "MsaDataCollatorForSequenceClassification",
    "MsaDataCollatorForTokenClassification",
    "MsaDataset",
    "MsaFeatureExtractionPipeline",
    "MsaFillMaskPipeline",
    "MsaForContactPrediction",
    "MsaForMaskedLM",
    "MsaForSequenceClassification",
    "MsaForTokenClassification",
    "MsaModel",
    "MsaPreTrainedModel",
    "MsaTokenizer",
    "SizeGroupedSampler",
    "SubstitutionScores",
    "VariantDataset",
    "VariantScores",
    "bundled_family",
    "complete_folder",
    "convert_checkpoint",
    "embed",
    "evaluate_contacts",
    "export_onnx",
    "export_program",
    "filter_rows",
    "fit_contact_regression",
    "fit_contacts",
    "fit_distances",
    "generate",
    "list_families",
    "load_alignments",
    "load_model",
    "neff",
    "plot_contacts",
    "plot_distances",
    "plot_substitutions",
    "precision",
    "precisions",
    "predict_contacts",
    "predict_distances",
    "prepare_alignment",
    "push_folder",
    "read_alignment",
    "read_labels",
    "revert_checkpoint",
    "row_log_likelihoods",
    "score_all_singles",
    "score_variants",
    "search_homologues",
    "select_rows",
    "sequence_weights",
    "spearman",
    "split_rows",
    "structure_contacts",
    "write_alignment",
    "write_contacts",
    "write_distances",
    "write_embeddings",
    "write_evaluation",
    "write_generated",
    "write_scores",
]
