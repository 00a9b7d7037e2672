"""Finds the pages that answer a question: pages, chunks, words, vectors, and stores of them."""

from ftcourse.retrieval.chunks import Chunk, Chunker, chunk
from ftcourse.retrieval.encoder import load_encoder
from ftcourse.retrieval.lexical import BM25, STOP_WORDS, content_words, stem_words
from ftcourse.retrieval.opening import open_store
from ftcourse.retrieval.pages import LABELS, Page, read_page, read_pages
from ftcourse.retrieval.scores import MeanRank, find_all, fuse, mean_reciprocal_rank, recall_at_k
from ftcourse.retrieval.store import Hit

__all__ = [
    "BM25",
    "LABELS",
    "STOP_WORDS",
    "Chunk",
    "Chunker",
    "Hit",
    "MeanRank",
    "Page",
    "chunk",
    "content_words",
    "find_all",
    "fuse",
    "load_encoder",
    "mean_reciprocal_rank",
    "open_store",
    "read_page",
    "read_pages",
    "recall_at_k",
    "stem_words",
]
