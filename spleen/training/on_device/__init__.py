"""Optimiser steps on slices that lie on the device."""
