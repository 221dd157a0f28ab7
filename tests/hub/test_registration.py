"""Registering makes the auto classes and pipelines know the package's classes, however often it is called."""

from transformers import AutoConfig, AutoModelForMaskedLM, AutoTokenizer
from transformers.pipelines import PIPELINE_REGISTRY

from modeling_msa import MsaConfig, MsaForMaskedLM, MsaTokenizer
from modeling_msa.hub.finding import resolve_model
from modeling_msa.hub.registration import register


def test_registering_again_changes_nothing():
    before = {task: entry["impl"] for task, entry in PIPELINE_REGISTRY.supported_tasks.items()}
    register()
    assert {task: entry["impl"] for task, entry in PIPELINE_REGISTRY.supported_tasks.items()} == before
    assert "msa-contact-prediction" in before
    folder = resolve_model("msa-tiny")
    assert type(AutoConfig.from_pretrained(folder)) is MsaConfig
    assert type(AutoTokenizer.from_pretrained(folder)) is MsaTokenizer
    assert type(AutoModelForMaskedLM.from_pretrained(folder)) is MsaForMaskedLM
    assert callable(MsaForMaskedLM.write_card)
