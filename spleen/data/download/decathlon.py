"""The ten archives of the Medical Segmentation Decathlon (Simpson et al. 2019, arXiv:1902.09063; CC-BY-SA 4.0)."""

from dataclasses import dataclass

_BUCKET = "https://msd-for-monai.s3-us-west-2.amazonaws.com"


@dataclass(frozen=True)
class DecathlonArchive:
    """One task: its name, target and modality, the MD5 of its tar, and the tar's approximate size if known."""

    name: str
    content: str
    md5: str
    about_bytes: int | None = None

    @property
    def url(self) -> str:
        """Download URL."""
        return f"{_BUCKET}/{self.name}.tar"


# URLs and MD5 sums as published by MONAI (monai.apps.DecathlonDataset).
DECATHLON_ARCHIVES = {
    archive.name: archive
    for archive in (
        DecathlonArchive("Task01_BrainTumour", "brain tumour, MR, 4 channels", "240a19d752f0d9e9101544901065d872"),
        DecathlonArchive("Task02_Heart", "left atrium, MR", "06ee59366e1e5124267b774dbd654057"),
        DecathlonArchive("Task03_Liver", "liver and tumour, CT", "a90ec6c4aa7f6a3d087205e23d4e6397"),
        DecathlonArchive("Task04_Hippocampus", "hippocampus, 2 parts, MR", "9d24dba78a72977dbd1d2e110310f31b"),
        DecathlonArchive("Task05_Prostate", "prostate, 2 zones, MR, 2 channels", "35138f08b1efaef89d7424d2bcc928db"),
        DecathlonArchive("Task06_Lung", "lung tumour, CT", "8afd997733c7fc0432f71255ba4e52dc"),
        DecathlonArchive("Task07_Pancreas", "pancreas and tumour, CT", "4f7080cfca169fa8066d17ce6eb061e4"),
        DecathlonArchive("Task08_HepaticVessel", "liver vessels and tumour, CT", "641d79e80ec66453921d997fbf12a29c"),
        DecathlonArchive("Task09_Spleen", "spleen, CT", "410d4a301da4e5b2f6f86ec3ddba524e", 1_610_000_000),
        DecathlonArchive("Task10_Colon", "colon cancer, CT", "bad7a188931dc2f6acf72b08eb6202d0"),
    )
}
