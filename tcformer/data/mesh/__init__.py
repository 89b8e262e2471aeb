"""Body meshes: annotation files of SPIN, EFT, 3DPW, MPI-INF-3DHP, LSP, MPII and COCO, and crops of people."""
