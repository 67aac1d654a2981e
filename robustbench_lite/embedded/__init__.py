"""What travels with the package: 1,000 MNIST images, three small trained models, their figures.

`README.md` names each file with its licence and how it was made; `card.json` holds the hashes and
the measured accuracies; `nets.py` holds the architectures.
"""
